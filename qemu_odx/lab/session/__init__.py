"""Labs that run: for one script, or until they are taken down. `qemu-odx run`, `shell`, `up`, `down`, `ps`."""
