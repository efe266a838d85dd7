"""The scheduler as a pure function of state and time: no I/O, no clock, no random number."""
