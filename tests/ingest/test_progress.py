from cacheproxy.ingest.ingest import Progress
from cacheproxy.ingest.progress import Display
from cacheproxy.ingest.readers import Position


def test_the_rate_and_the_time_left_are_those_of_this_run():
    times = iter([100.0, 101.0])
    display = Display("embed", lambda: next(times))
    position = Position(read=500_000, total=2_000_000)
    progress = Progress(position, rows=5_000, taken_up=4_000, refused=0)
    display(progress)  # the first rows of this run; what was read before does not count
    position.read, progress.rows, progress.refused = 1_000_000, 6_000, 2

    line = display.line(progress, 120.0)

    assert line == "embed: 6,000 rows, 100 rows/s, 50%, 0:40 left, 2 refused"
