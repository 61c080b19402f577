package orchestrate

import "syscall"

// bootID is the ID of the kernel's present boot; empty where it is hidden.
func bootID() string {
	id, err := syscall.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return ""
	}
	return id
}

// pidSpace is always the same: this system has one.
func pidSpace() uint64 { return 0 }
