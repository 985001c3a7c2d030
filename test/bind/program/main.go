// Program is a server that knows nothing of systemd: it opens its port itself, and answers who it is and who asks.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	network := flag.String("network", "tcp4", "tcp4, tcp6 or tcp")
	admin := flag.String("admin", "", "a second address, on the same network")
	udp := flag.String("udp", "", "an address of UDP")
	flag.Parse()
	if *udp != "" {
		if _, err := net.ListenPacket("udp", *udp); err != nil {
			log.Fatal(err)
		}
	}
	if *admin != "" {
		go serve(*network, *admin, "admin ")
	}
	if flag.NArg() == 0 {
		select {}
	}
	serve(*network, flag.Arg(0), "")
}

func serve(network, address, role string) {
	ln, err := net.Listen(network, address)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%sinstance=%s pid=%d peer=%s port=%s\n", role, os.Getenv("INSTANCE"), os.Getpid(), r.RemoteAddr, os.Getenv("PORT"))
	})))
}
