"""Sound, video and faces."""
