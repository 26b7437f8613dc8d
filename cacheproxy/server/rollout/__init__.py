"""What happens while a new model or version comes beside the old one."""
