"""What Auto3DSeg calls."""
