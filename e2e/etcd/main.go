// Command etcd is etcd itself, built from its Go module, for the end-to-end tests of podbeat.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
