"""The kinds: Kubernetes-style objects as msgspec Structs, with defaults, validation and schemas. No I/O."""
