"""The search for networks that suit a device."""
