/* A library whose only code needs nothing but its own instructions. */
void leak_page(char *page)
{
	*(volatile char *)page = 1;
}

/* Not called. */
void never_called(char *page)
{
	*(volatile char *)page = 2;
}
