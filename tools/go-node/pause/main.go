// What holds the namespaces of a pod: it waits to be told to go, and buries processes that lost their parent.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	news := make(chan os.Signal, 8)
	signal.Notify(news, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for what := range news {
		if what != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != nil || pid <= 0 {
				break
			}
		}
	}
}
