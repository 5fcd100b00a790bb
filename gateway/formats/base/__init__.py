"""What all foreign formats share."""
