"""How the runs of the flow start within a second: forked from a process that has loaded everything."""
