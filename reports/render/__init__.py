"""A comparison as something to look at: terminal, Markdown, HTML, Chrome trace. Renderers format; they compute nothing."""
