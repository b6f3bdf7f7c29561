"""The dashboard for people: Streamlit pages that know nothing but the API."""
