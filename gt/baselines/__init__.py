"""What models without a network make of the same data: whatever is trained should beat them."""
