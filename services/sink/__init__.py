"""The sink: predictions in, MongoDB documents out; a newer document is never overwritten by an older one."""
