"""Views: figures and widgets. No package below this floor needs Jupyter or plotly."""
