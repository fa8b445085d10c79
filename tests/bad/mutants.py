def plant(): pass
