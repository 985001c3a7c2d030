package activation_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/unitgen/unitgen/activation"
)

// A whole service. Under systemd it takes the sockets of its socket unit; run by hand it listens by
// itself.
func Example() {
	ctx, stop := activation.StopSignal(context.Background())
	defer stop()

	passed, err := activation.Inherit()
	if err != nil {
		log.Fatal(err)
	}
	listeners, err := passed.AllListeners()
	if errors.Is(err, activation.ErrNotPassed) {
		var l net.Listener
		l, err = net.Listen("tcp", "localhost:3000")
		listeners = []net.Listener{l}
	}
	if err != nil {
		log.Fatal(err)
	}
	notifier, err := activation.NewNotifier()
	if err != nil {
		log.Fatal(err)
	}
	defer notifier.Close()

	server := &http.Server{Handler: http.FileServer(http.Dir("/usr/share/doc"))}
	if err := activation.Serve(ctx, server, listeners, activation.ServeOptions{Notifier: notifier}); err != nil {
		log.Fatal(err)
	}
}

// Two socket units, told apart by FileDescriptorName=.
func ExampleDescriptors_Listeners() {
	passed, err := activation.Inherit()
	if err != nil {
		log.Fatal(err)
	}
	defer passed.Close()
	for _, name := range []string{"http", "admin"} {
		listeners, err := passed.Listeners(name)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(name, len(listeners))
	}
	// Output:
	// find listener "http": not passed by the service manager: LISTEN_PID is not set
	// find listener "admin": not passed by the service manager: LISTEN_PID is not set
}

// Raw descriptors, for a program that must not touch O_NONBLOCK of sockets it shares with others.
func ExampleDescriptor_Take() {
	passed, err := activation.Inherit()
	if err != nil {
		log.Fatal(err)
	}
	defer passed.Close()
	for _, d := range passed.All() {
		if d.Kind() != activation.StreamListener {
			continue
		}
		name, addr := d.Name(), d.Addr()
		fd, err := d.Take() // ours to close from here on
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(name, addr, fd)
	}
}

// State in a memfd outlives the process: PID 1 keeps it, and passes it to the next one.
func ExampleNotifier_StoreFiles() {
	passed, err := activation.Inherit()
	if err != nil {
		log.Fatal(err)
	}
	defer passed.Close()
	notifier, err := activation.NewNotifier()
	if err != nil {
		log.Fatal(err)
	}
	defer notifier.Close()

	for _, d := range passed.Named("state") {
		file, err := d.File()
		if err != nil {
			log.Fatal(err)
		}
		defer file.Close()
		if _, err := file.Seek(0, io.SeekStart); err != nil { // the offset is shared with the last writer
			log.Fatal(err)
		}
		old, err := io.ReadAll(file)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("last time: %s\n", old)
	}

	file, err := os.CreateTemp("", "state")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	// One name, one entry: take away the old one first.
	if err := errors.Join(notifier.RemoveStored("state"), notifier.StoreFiles("state", int(file.Fd()))); err != nil {
		log.Fatal(err)
	}
}

// What PID 1 reads. Env stands in for the environment, as tests of a service want it.
func ExampleNotifier() {
	address := fmt.Sprintf("@activation-example-%d", os.Getpid())
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		log.Fatal(err)
	}
	defer manager.Close()
	env := activation.Env{Lookup: func(key string) (string, bool) { return address, key == "NOTIFY_SOCKET" }}

	notifier, err := env.NewNotifier()
	if err != nil {
		log.Fatal(err)
	}
	defer notifier.Close()
	if err := notifier.Send("READY=1", "STATUS=4/4 instances up"); err != nil {
		log.Fatal(err)
	}

	buf := make([]byte, 4096)
	n, err := manager.Read(buf)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.ReplaceAll(string(buf[:n]), "\n", " "))
	// Output: READY=1 STATUS=4/4 instances up
}
