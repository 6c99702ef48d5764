"""Reception: which model, from where, under which name, and how long it stays."""
