"""What `ondol doctor` looks at, one kind of thing a module.

Each check gives findings and raises nothing: what is broken is what it is there to tell.
"""
