"""Scripts and records of the releases that may run beside this one."""
