"""What the machine needs: files, worker processes, versions, memory, devices. Nothing here is meant for users."""
