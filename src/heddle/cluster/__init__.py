"""heddle on Kubernetes as a process: informers, leader election, controllers, and what it answers over HTTP."""
