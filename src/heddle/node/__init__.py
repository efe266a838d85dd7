"""The node agent: devices, labels and health of one machine."""
