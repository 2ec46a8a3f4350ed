"""What a root looks like as names and bytes, without a mount."""
