from crash.mutants import Mutant
MUTANTS: dict[str, Mutant] = {}
