package chaos

import "syscall"

// nodeAttr lets a node die with the test process, however that ends.
func nodeAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
