"""How studies are shown: files, pages, figures, and tables on the console."""
