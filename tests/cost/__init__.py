"""What operations cost, in calls and bytes, which don't depend on the machine's mood."""
