create table product (
    id integer primary key,
    name varchar(80) not null unique,
    cents bigint not null,
    stock bigint not null check (stock >= 0)
);

create table orders (
    id varchar(36) primary key,
    name varchar(80) not null,
    cents bigint not null
);

create table order_line (
    order_id varchar(36) not null references orders (id),
    product_id integer not null references product (id),
    quantity bigint not null,
    cents bigint not null,
    primary key (order_id, product_id)
);
