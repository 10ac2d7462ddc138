"""Pictures and pages of runs, by Matplotlib, Pillow and Jinja2, which only its modules import."""
