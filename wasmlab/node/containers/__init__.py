"""One container's life: pulled, created, run, probed, talked to, ended, and run again."""
