"""How costs are learnt: from wall records, from micro-measurements of the host, and how well they foretell held-out cells."""
