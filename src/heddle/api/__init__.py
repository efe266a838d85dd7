"""The kinds: Kubernetes-style objects as msgspec Structs, with defaults, validation and schemas. No I/O.

One noun a module. `registry` lists them all; `validate` finds every fault of an object at once; `admission`
is what a server runs on each write; `crd` and `openapi` describe the same Structs to Kubernetes and kubectl.
"""
