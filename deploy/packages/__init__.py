"""Debian packages that tests need beside Python's: install.sh puts them in place where that is possible."""
