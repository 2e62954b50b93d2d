"""What people look at: figures and widgets. Nothing below this floor needs Jupyter or plotly."""
