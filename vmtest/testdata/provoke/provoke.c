// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes the kernel complain in the way that is asked for: the harness has to
 * see and name each of these.
 */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#if __has_include(<linux/panic.h>)
#include <linux/panic.h>
#endif
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/timer.h>

static char *kind = "";
module_param(kind, charp, 0444);
MODULE_PARM_DESC(kind, "what to do wrong");

static noinline void provoke_warn(void)
{
	WARN_ON(1);
}

static noinline void provoke_warn_text(void)
{
	WARN(1, "the answer is %d, not %d\n", 42, 41);
}

static noinline void provoke_bug(void)
{
	BUG();
}

static noinline void provoke_null(void)
{
	int *p = (int *)8;

	OPTIMIZER_HIDE_VAR(p);
	WRITE_ONCE(*p, 1);
}

static noinline void provoke_page_fault(void)
{
	/* Between the fixmap and the modules nothing is ever mapped. */
	char *p = (char *)0xffffffff00001000UL;

	OPTIMIZER_HIDE_VAR(p);
	WRITE_ONCE(*p, 1);
}

static noinline void provoke_gpf(void)
{
	char *p = (char *)0xdead000000000100UL;

	OPTIMIZER_HIDE_VAR(p);
	WRITE_ONCE(*p, 1);
}

static noinline int provoke_divide(void)
{
	int zero = 0, one = 1;

	/* In C a compiler may do what it likes with this. */
	asm volatile("cltd; idivl %1" : "+a"(one) : "r"(zero) : "edx");
	return one;
}

static noinline void provoke_refcount(void)
{
	refcount_t r = REFCOUNT_INIT(1);

	refcount_dec(&r);
	refcount_inc(&r);
}

static noinline void provoke_list(void)
{
	struct list_head head, a, b;

	INIT_LIST_HEAD(&head);
	list_add(&a, &head);
	list_add(&b, &head);
	a.prev = &a;
	list_del(&a);
}

static noinline void provoke_atomic(void)
{
	preempt_disable();
	schedule_timeout_uninterruptible(1);
	preempt_enable();
}

static noinline void provoke_stack(unsigned long depth)
{
	char buf[512];

	memset(buf, depth, sizeof(buf));
	OPTIMIZER_HIDE_VAR(depth);
	barrier_data(buf);
	provoke_stack(depth + 1);
	barrier_data(buf);
}

static noinline void provoke_oom(void)
{
	void **last = NULL;

	for (;;) {
		void **p = kmalloc(PAGE_SIZE * 4, GFP_KERNEL);

		if (!p)
			break;
		*p = last;
		last = p;
	}
}

static noinline void provoke_panic(void)
{
	panic("provoked at %px with %d", provoke_panic, 17);
}

static DEFINE_MUTEX(provoke_mutex);

static int provoke_holder(void *unused)
{
	mutex_lock(&provoke_mutex);
	for (;;)
		msleep(1000);
	return 0;
}

static noinline void provoke_hung(void)
{
	kthread_run(provoke_holder, NULL, "holder");
	while (!mutex_is_locked(&provoke_mutex))
		msleep(20);
	mutex_lock(&provoke_mutex);
}

static noinline void provoke_spin(void)
{
	/* A preemptible kernel would run the watchdog's thread in between. */
	preempt_disable();
	for (;;)
		cpu_relax();
}

static struct rcu_head provoke_head;

static void provoke_called(struct rcu_head *unused)
{
}

static noinline void provoke_rcu(void)
{
	/* Without a grace period to end there is nothing to stall. */
	call_rcu(&provoke_head, provoke_called);
	preempt_disable();
	provoke_spin();
}

static noinline void provoke_irqs_off(void)
{
	local_irq_disable();
	provoke_spin();
}

static noinline void provoke_leak(void)
{
	int i;

	/* Of the last some stack may still know. */
	for (i = 0; i < 16; i++) {
		char *p = kmalloc(4000, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(p);
		if (p)
			memset(p, 0x5a, 4000);
	}
}

static noinline void provoke_use_after_free(void)
{
	char *p = kmalloc(64, GFP_KERNEL);

	kfree(p);
	OPTIMIZER_HIDE_VAR(p);
	if (p)
		WRITE_ONCE(*p, 1);
}

static DEFINE_MUTEX(provoke_a);
static DEFINE_MUTEX(provoke_b);

static noinline void provoke_a_b(void)
{
	mutex_lock(&provoke_a);
	mutex_lock(&provoke_b);
	mutex_unlock(&provoke_b);
	mutex_unlock(&provoke_a);
}

static noinline void provoke_deadlock(void)
{
	provoke_a_b();
	mutex_lock(&provoke_b);
	mutex_lock(&provoke_a);
	mutex_unlock(&provoke_a);
	mutex_unlock(&provoke_b);
}

static void provoke_timeout(struct timer_list *unused)
{
}

/* Freed while it runs: a timer, as a structure with one would be. */
static noinline void provoke_odebug(void)
{
	struct timer_list *timer = kmalloc(sizeof(*timer), GFP_KERNEL);

	if (!timer)
		return;
	timer_setup(timer, provoke_timeout, 0);
	mod_timer(timer, jiffies + 3600 * HZ);
	kfree(timer);
}

static noinline void provoke_sleep(void)
{
	preempt_disable();
	might_sleep();
	preempt_enable();
}

static noinline void provoke_preemptible(void)
{
	int cpu = smp_processor_id();

	OPTIMIZER_HIDE_VAR(cpu);
}

static int __init provoke_init(void)
{
	if (!strcmp(kind, "warn"))
		provoke_warn();
	else if (!strcmp(kind, "warn-text"))
		provoke_warn_text();
	else if (!strcmp(kind, "bug"))
		provoke_bug();
	else if (!strcmp(kind, "null"))
		provoke_null();
	else if (!strcmp(kind, "page-fault"))
		provoke_page_fault();
	else if (!strcmp(kind, "gpf"))
		provoke_gpf();
	else if (!strcmp(kind, "divide"))
		return provoke_divide();
	else if (!strcmp(kind, "refcount"))
		provoke_refcount();
	else if (!strcmp(kind, "list"))
		provoke_list();
	else if (!strcmp(kind, "atomic"))
		provoke_atomic();
	else if (!strcmp(kind, "stack"))
		provoke_stack(0);
	else if (!strcmp(kind, "oom"))
		provoke_oom();
	else if (!strcmp(kind, "panic"))
		provoke_panic();
	else if (!strcmp(kind, "hung"))
		provoke_hung();
	else if (!strcmp(kind, "spin"))
		provoke_spin();
	else if (!strcmp(kind, "rcu"))
		provoke_rcu();
	else if (!strcmp(kind, "irqs-off"))
		provoke_irqs_off();
	else if (!strcmp(kind, "leak"))
		provoke_leak();
	else if (!strcmp(kind, "use-after-free"))
		provoke_use_after_free();
	else if (!strcmp(kind, "deadlock"))
		provoke_deadlock();
	else if (!strcmp(kind, "odebug"))
		provoke_odebug();
	else if (!strcmp(kind, "sleep"))
		provoke_sleep();
	else if (!strcmp(kind, "preemptible"))
		provoke_preemptible();
	else
		return -EINVAL;
	return 0;
}

static void __exit provoke_exit(void)
{
}

module_init(provoke_init);
module_exit(provoke_exit);
MODULE_DESCRIPTION("Provoke each of the kernel's complaints");
MODULE_LICENSE("GPL");
