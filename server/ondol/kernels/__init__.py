"""What differs by hardware; the torch reference for every operation."""
