"""Tasks, task factories and futures as the loop makes them."""

from __future__ import annotations

import asyncio
import contextvars
import gc

import pytest

from .._kit import clause

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


async def returns(value):
    return value


@clause("callbacks.task.next-iteration")
def test_a_task_starts_in_the_next_iteration(loop, tick):
    seen = []

    async def main():
        seen.append("started")
        await asyncio.sleep(0)
        seen.append("went on")

    loop.call_soon(seen.append, "before")
    task = loop.create_task(main())
    loop.call_soon(seen.append, "after")
    assert isinstance(task, asyncio.Task) and task.get_loop() is loop
    assert seen == []
    tick(3)
    assert seen == ["before", "started", "after", "went on"]
    assert task.done()


@clause("callbacks.task.next-iteration")
def test_what_is_no_coroutine_is_refused(loop):
    for wrong in (None, 3, print, loop.create_future()):
        with pytest.raises(TypeError):
            loop.create_task(wrong)


@clause("callbacks.task.name-and-context")
def test_name_and_context_reach_the_task(loop, run):
    async def look():
        seen = var.get()
        var.set("by the task")
        return seen, asyncio.current_task().get_name()

    context = contextvars.copy_context()
    context.run(var.set, "given")
    assert run(loop.create_task(look(), name="named", context=context)) == ("given", "named")
    assert context[var] == "by the task"
    var.set("current")
    task = loop.create_task(look())
    var.set("changed")
    assert run(task)[0] == "current"
    assert var.get() == "changed"


@clause("callbacks.task.factory")
def test_a_task_factory_makes_the_tasks(loop, run):
    calls = []
    made = []

    def factory(loop, coroutine, **kwargs):
        calls.append((loop, coroutine))
        made.append(asyncio.Task(coroutine, loop=loop, **kwargs))
        return made[-1]

    assert loop.get_task_factory() is None
    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    coroutine = returns(1)
    task = loop.create_task(coroutine)
    assert calls == [(loop, coroutine)] and task is made[0]
    assert run(task) == 1
    assert loop.run_until_complete(returns(2)) == 2
    assert len(made) >= 2
    for wrong in (3, "factory"):
        with pytest.raises(TypeError):
            loop.set_task_factory(wrong)
    assert loop.get_task_factory() is factory
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None
    count = len(made)
    assert run(loop.create_task(returns(3))) == 3
    assert len(made) == count


@clause("callbacks.task.factory-context")
def test_a_context_reaches_the_factory_by_keyword(loop, run):
    seen = []

    def factory(loop, coroutine, **kwargs):
        seen.append(kwargs.get("context"))
        return asyncio.Task(coroutine, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    context = contextvars.copy_context()
    task = loop.create_task(returns(1), context=context)
    assert seen == [context] and seen[0] is context
    assert run(task) == 1


@clause("callbacks.task.factory-keywords")
def test_the_factory_gets_every_keyword_argument(loop, run):
    seen = {}

    def factory(loop, coroutine, *, colour=None, **kwargs):
        seen.update(kwargs, colour=colour)
        return asyncio.Task(coroutine, loop=loop, **kwargs)

    async def main():
        loop.set_task_factory(factory)
        task = loop.create_task(returns(3), name="named", eager_start=True, colour="red")
        loop.set_task_factory(None)
        return task.get_name(), await task

    assert run(main()) == ("named", 3)
    assert seen == {"name": "named", "eager_start": True, "colour": "red"}


@clause("callbacks.task.eager-start")
def test_an_eager_task_runs_until_it_waits(loop, run):
    seen = []

    async def waits(future):
        seen.append(var.get())
        await future
        seen.append("went on")

    async def main():
        var.set("eager")
        context = contextvars.copy_context()
        var.set("later")
        future = loop.create_future()
        task = loop.create_task(waits(future), context=context, eager_start=True)
        assert seen == ["eager"]
        assert not task.done()
        future.set_result(None)
        await task
        done = loop.create_task(returns(3), eager_start=True)
        return done.done() and done.result()

    assert run(main()) == 3
    assert seen == ["eager", "went on"]


@clause("callbacks.task.factory-name")
def test_a_task_of_a_factory_has_its_name(loop, run):
    def factory(loop, coroutine, **kwargs):
        return asyncio.Task(coroutine, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    task = loop.create_task(returns(1), name="named")
    assert task.get_name() == "named"
    run(task)


@clause("callbacks.task.eager")
def test_an_eager_task_starts_at_once(loop, run):
    seen = []

    async def blocks():
        seen.append("started")
        await asyncio.sleep(0)
        seen.append("went on")
        return "blocked"

    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        quick = loop.create_task(returns("quick"), name="eager")
        assert quick.done() and quick.result() == "quick" and quick.get_name() == "eager"
        task = loop.create_task(blocks())
        assert seen == ["started"] and not task.done()
        return await task

    assert run(main()) == "blocked"
    assert seen == ["started", "went on"]


@clause("callbacks.task.eager")
def test_an_eager_task_may_be_made_while_the_loop_is_not_running(loop, run):
    loop.set_task_factory(asyncio.eager_task_factory)
    task = loop.create_task(returns("later"))
    assert run(task) == "later"


@clause("callbacks.task.eager")
def test_an_eager_task_runs_in_the_context_given(loop, run):
    async def look():
        return var.get()

    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        context = contextvars.copy_context()
        context.run(var.set, "given")
        return await loop.create_task(look(), context=context)

    assert run(main()) == "given"


@clause("callbacks.task.current")
def test_the_current_task_is_known_within_it_only(loop, run):
    seen = []

    async def main():
        loop.call_soon(lambda: seen.append(asyncio.current_task()))
        assert asyncio.current_task() is task
        await asyncio.sleep(0.001)
        assert asyncio.current_task() is task
        assert asyncio.all_tasks() >= {task}

    task = loop.create_task(main())
    run(task)
    assert seen == [None]
    assert asyncio.all_tasks(loop) == set()


@clause("callbacks.task.unretrieved")
def test_an_exception_nobody_retrieved_is_reported(loop, errors, tick):
    error = LookupError("not retrieved")

    async def main():
        raise error

    loop.create_task(main())
    tick(3)
    gc.collect()
    assert errors.only()["exception"] is error


@clause("callbacks.future.created")
def test_a_future_belongs_to_the_loop(loop, run):
    future = loop.create_future()
    assert asyncio.isfuture(future) and future.get_loop() is loop and not future.done()
    loop.call_soon(future.set_result, 1)
    assert run(future) == 1
