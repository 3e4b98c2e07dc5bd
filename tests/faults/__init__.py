"""What can fail, and which test makes it fail.

Names without a folder are in this one; `soak` is `python -m tests.faults.soak`, run by hand.

    F1   workers killed again and again     test_processes (workers_killed), soak
    F2   death at every step of an export   test_crash_matrix; at all of them, over fakes,
                                            unit/test_pipeline (a_crash_at_any_seam),
                                            of a cut one unit/test_partitioned, test_partitions
    F3   a worker that sleeps through its   test_processes (stopped_for_longer), soak;
         lease and wakes                    unit/test_pipeline (slept_through_its_lease),
                                            test_partitions (sleeps_at_any_seam)
    F4   Redis killed under load            test_processes (a_redis_killed), soak;
                                            test_fleet_broker (outlives_restarts)
    F5   power cut under Redis              not here: it needs a disk that forgets what was not
                                            synced. That Redis syncs each write is checked at the
                                            start: contract/store/test_redis, test_fleet_startup
    F6   links that go silent               test_fleet_broker (silent)
    F7   doorbells lost or doubled          test_fleet_broker (doorbells), soak; with the API dead
                                            besides, test_processes (every_wake_up_was_lost)
    F8   S3 killed, overloaded, lying       test_processes (an_s3_killed), soak; its answers one
                                            by one, integration/s3_storage. A store without
                                            UploadPartCopy or If-None-Match is not tried
    F9   upstream fails, lies, drips        soak --upstream-faults; unit/test_http_upstream,
                                            integration/board_faults
    F10  postings change while read         unit/test_reading, integration/board_faults
    F11  a worker's clock is hours off      test_fleet_deploy (wall_clock)
    F12  Redis full                         contract/store/test_redis (a_full_redis). A full disk
                                            is not tried: it needs a file system of its own
    F13  urgent exports go first            contract/store/test_order
    F14  one user's many delay no other     contract/store/test_order
    F15  cancel at any time                 unit/test_pipeline (cancel), contract/store/test_ends,
                                            integration/test_worker, test_partitions
                                            (withdrawn_at_any_seam); not during an outage
    F16  rolling deploy                     test_processes (a_rolling_deploy), soak,
                                            test_fleet_deploy, test_partitions (knows_no)
    F17  an export that kills its workers   test_fleet_poison
    F18  hours of all at once               soak; hours are for a machine of its own
    F19  POST repeated after a lost answer  contract/store/test_idempotency. The soak repeats no
                                            POST: one without an answer must end as well
    F20  new versions of celery, kombu and  every test here runs with the installed ones: run
         redis-py                           them before a pin moves
"""

from __future__ import annotations
