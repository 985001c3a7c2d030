package activation

import (
	"errors"
	"fmt"
	"slices"

	"github.com/unitgen/unitgen/internal/listenfds"
)

// maxRights is the kernel's SCM_MAX_FD: the descriptors that one message can carry.
const maxRights = 253

// StoreFiles gives copies of fds to the manager, which passes them under that name, in no
// particular order, to the next process of the service: FDSTORE=1. The caller keeps its own. The
// unit needs FileDescriptorStoreMax=, otherwise they are dropped without a word; so are duplicates
// of what is stored. More than 253 go in several messages, not atomically.
//
// The manager removes an entry by itself when the descriptor hangs up. For descriptors on which
// poll(2) reports an error from the start, such as BPF maps, that is at once: use
// StoreFilesUnpolled.
//
// The manager has them for certain, whatever becomes of this process, once a Barrier sent
// afterwards returned.
func (n *Notifier) StoreFiles(name string, fds ...int) error {
	return n.store("FDSTORE=1\nFDNAME="+name, name, fds)
}

// StoreFilesUnpolled is StoreFiles for entries that stay until they are removed, hung up or not:
// FDPOLL=0.
func (n *Notifier) StoreFilesUnpolled(name string, fds ...int) error {
	return n.store("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, name, fds)
}

func (n *Notifier) store(message, name string, fds []int) error {
	if err := checkStoreName(name); err != nil {
		return err
	}
	if len(fds) == 0 {
		return fmt.Errorf("store %q: no descriptors", name)
	}
	for batch := range slices.Chunk(fds, maxRights) {
		if err := n.send(message, batch...); err != nil {
			return fmt.Errorf("store %q: %w", name, err)
		}
	}
	return nil
}

// RemoveStored removes every stored descriptor of that name: FDSTOREREMOVE=1. It is no error if
// there is none.
func (n *Notifier) RemoveStored(name string) error {
	if err := checkStoreName(name); err != nil {
		return err
	}
	return n.send("FDSTOREREMOVE=1\nFDNAME=" + name)
}

// checkStoreName refuses the empty name too: PID 1 takes it, but RemoveStored and Named then look
// as if nothing was asked for.
func checkStoreName(name string) error {
	if name == "" {
		return errors.New("check descriptor name: empty")
	}
	return listenfds.CheckName(name)
}
