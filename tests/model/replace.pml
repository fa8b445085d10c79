/* Replaces: one terminal puts a new file in the old one's place, another one appends.

   1. Terminal 1 appends a record, and then clears the session and starts it with another record, in
      one transaction (or reverts to behind the first record, with KEEP). Terminal 2 appends two
      records in one operation. Then somebody takes the lock, settles what is found, and looks
      whether every promise is kept.
   2. Meanwhile a terminal is killed at any step, a program without our lock has the file open and
      appends a line, a reader looks twice, a user removes a rotated file, whose number goes to the
      next file: what is defined decides.
   3. The session begins with record 1. Record 4 is operation 1, 5 is operation 2, the replace; 2 and
      3 are operation 3, and 6 is the foreign line. */

#define UNITS 14
#define FILES 5
#define TERMINALS 2
#define OPERATIONS 3
#define FIRST(operation) ((operation) == 1 -> 4 : ((operation) == 2 -> 5 : 2))
#define COUNT(operation) ((operation) == 3 -> 2 : 1)
#ifdef TWO_REPLACES
#define REPLACES(operation) ((operation) == 1 || (operation) == 2)
#else
#define REPLACES(operation) ((operation) == 2)
#endif
#ifdef KEEP
#define KEPT 2
#else
#define KEPT 0
#endif
#ifdef WITH_FOREIGN
#define FOREIGN 6
#define FOREIGNERS 1
#else
#define FOREIGNERS 0
#endif
#ifdef WITH_READER
#define LOOKS 2
#define ATTEMPTS 3
#define READERS 1
#else
#define READERS 0
#endif
#define ACTORS (TERMINALS + FOREIGNERS + READERS)

#include "store.inl"

init {
    atomic {
        session_with_one_record();
        run Terminal(1, 1, 2);
        run Terminal(2, 3, 3);
#ifdef LOOKS
        run Reader();
#endif
#if FOREIGN
        run Foreigner();
#endif
#ifdef USER_REMOVES
        run User();
#endif
    }
    atomic { finished >= ACTORS -> run Terminal(TERMINALS + 1, 0, 0) }
    finished > ACTORS
}

/* Every wait ends. */
ltl ends { <> (finished > ACTORS) }
