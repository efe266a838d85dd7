"""What heddle is made of on a Kubernetes cluster: objects, rights and policies, described once.

`heddle install` renders them in Python; the Helm chart (`deploy/helm/heddle`), the document of rights and the tests are
made from the same description. Only `plan`, `server` (the installer) and `chart` (the writer of files) do I/O.
"""
