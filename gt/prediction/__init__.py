"""What trained models say of data: tables, how sure they are, and predictions from Python."""
