"""Front ends that others wrote, in their newest versions, against the gateway."""
