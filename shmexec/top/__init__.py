"""`shmexec top`: what the pools of this user are doing, as it happens, without taking part in anything."""
