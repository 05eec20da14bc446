"""The backend that needs only NumPy."""
