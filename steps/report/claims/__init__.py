"""AMD's claims about its v5.1 results as data, and what published results show about each."""
