"""The five pages. Each is a function without arguments that Streamlit calls for every visitor and every change."""
