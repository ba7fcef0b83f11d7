"""Terminal, Markdown, HTML and trace output."""
